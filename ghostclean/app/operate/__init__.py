"""What an operator asks for: status, gate, doctor, explain, resolve, undo, demo, schedules."""

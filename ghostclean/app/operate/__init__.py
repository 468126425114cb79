"""What an operator asks for: status, gate, doctor, explain, demo, schedules."""

"""What an operator asks for: undo, resolve."""

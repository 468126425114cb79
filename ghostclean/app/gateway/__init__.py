"""What every order to the broker passes through; how much it may take is in `core.protection.sizing`."""

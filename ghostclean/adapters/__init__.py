"""The parts that touch the outside world, each behind one protocol of `ghostclean.app.ports`."""

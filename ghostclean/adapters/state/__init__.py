"""ghostclean's own memory: `stored` has the rules once, `redis` and `sqlite` only where and how it is kept."""

"""Every option: one frozen dataclass a stage or a job, and the numbers that more than one place needs."""

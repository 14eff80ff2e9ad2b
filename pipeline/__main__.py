"""`python -m audiomill JOB ...`."""

from audiomill.jobs.main import main

main()

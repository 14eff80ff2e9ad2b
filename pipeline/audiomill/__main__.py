"""`python -m audiomill JOB ...`."""

from audiomill_jobs.main import main

main()

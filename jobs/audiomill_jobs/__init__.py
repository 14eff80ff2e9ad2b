"""The command line: argv or YAML -> config -> plan -> run. One file a job, no logic; folders follow the headings of `audiomill --help`."""

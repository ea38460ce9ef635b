"""What is asked of traces: one module a study, a function from traces (or a model and a task) to a `Result`."""

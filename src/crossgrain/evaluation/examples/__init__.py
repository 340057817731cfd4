"""What the report shows of single answers, one file a task: examples spread over the data, and the worst mistakes."""

"""What each verb of the command line does; everything heavy is imported inside the handler that needs it."""

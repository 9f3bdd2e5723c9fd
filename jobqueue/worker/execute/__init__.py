"""Run claimed jobs: in threads or on the event loop."""

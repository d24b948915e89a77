"""The queue is only a doorbell: a message says that there is something to do, the database says what."""

"""How a handler reaches the outside world: recorded facts, live calls, replay."""

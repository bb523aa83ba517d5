"""What processes beside the gateway share that work on hostile input: confined children, frames, and a socket."""

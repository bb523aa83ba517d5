"""What programs of ours have in common as processes: connections, hosts, children, their last message."""

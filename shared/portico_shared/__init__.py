"""What gateway and agent agree on: messages, identifiers, versions, the checkpoint format, and a few small tools."""

"""What a run will take: operations, memory, time."""

"""What a generation cost (time, FLOPs) and how far its video is from another one."""

"""The main job from end to end: player -> node -> recorder in processes of their own, then scores and pictures."""

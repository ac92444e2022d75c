"""From sensor messages and recordings to `SurroundFrame` and `Annotations`."""

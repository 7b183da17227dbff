"""The paper: client, server and link, the rounds, and what a training leaves behind."""

"""Servers that tickstock finds, starts and stops by itself: PostgreSQL and, for tests, Redis.

`installations` finds what this machine can run, `server.EmbeddedServer` runs one of them for as
long as some process is attached to it, `redis.embedded_redis` runs a Redis for the length of a
block.
This module imports nothing, so that the keeper processes stay small.
"""

"""Starts the base zygote: the supervisor's control socket is fd 0."""

from gust_child.zygote import main

main()

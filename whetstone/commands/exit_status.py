"""The exit statuses other than 0."""

USER_ERROR = 2
INTERRUPTED, TERMINATED = 130, 143  # the shell's codes for Ctrl-C and SIGTERM

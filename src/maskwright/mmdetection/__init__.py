"""Configs of MMDetection 2.x and 3.x: read without running them, and what of them becomes settings.

`literals` finds the values of one file by its syntax tree, `config` puts a file and those that it builds on together,
`zoo` knows what MMDetection's own base files say, and `carry` says what of a config becomes which setting, keeping the
`account`.
"""

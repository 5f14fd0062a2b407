"""The page on which a person labels: what is asked (sitting), a server for it (server), and what a
browser shows (page.*).
"""

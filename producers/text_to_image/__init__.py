"""Pictures from sentences.

judging/  whether generated pictures show what their sentences ask for
"""

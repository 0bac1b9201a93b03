"""Video streaming on Puffer: predict how long the next chunk of video takes to arrive.

Nothing is imported here, so that each step loads only what it needs.
"""

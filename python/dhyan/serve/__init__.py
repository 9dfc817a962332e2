"""`dhyan serve`: a local page that translates a sentence word by word and shows its weights, and its JSON end point.

ask     requests for a translation, checked: keys, types and ranges
work    translations one at a time in a thread of their own, that tell each decoding step and can be stopped
guard   who may ask, how much and for how long
page    the page
app     the HTTP routes
server  the socket, time-outs of connections, and signals
"""

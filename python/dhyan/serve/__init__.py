"""`dhyan serve`: a local page that translates a sentence word by word and shows its weights, and its JSON end point.

ask     what a request may say, checked
watch   a model that tells after each decoding step how far it is, and can be stopped
work    translations one at a time in a thread of their own
guard   who may ask, how much and for how long
page    the page
app     which address gives what
server  the socket, time-outs of connections, and signals
"""

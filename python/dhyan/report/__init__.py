"""What a model did, as one HTML page that needs no network: `dhyan report`, and the cards of `Translation`.

card     one translation as an evidence card, from plain tokens and weights
chart    curves as SVG that follows the page's colours
evidence which sentences to show, and what can be said of each
page     the run, its figures and the cards, put together
"""

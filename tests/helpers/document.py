"""An HTML page as tests read it."""

from html.parser import HTMLParser

VOID = {"meta", "input", "link"}


class Document(HTMLParser):
    """Tags opened, their attributes, and the text between them; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def words(self, tag):
        return [text for where, text in self.texts if where == tag]

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

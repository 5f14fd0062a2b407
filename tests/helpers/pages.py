"""A page of HTML, read as a person and as a browser would."""

from html.parser import HTMLParser


class Read(HTMLParser):
    """A page as its tags, its links, and the text that a person sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.seen: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.addresses += (
                [value or ""] if name in ("href", "src", "srcset", "action", "data") else []
            )
            self.ids |= {value or ""} if name == "id" else set()
            self.handlers += [name] if name.startswith("on") else []

    def handle_data(self, data: str) -> None:
        self.seen.append(data)

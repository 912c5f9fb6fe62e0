"""Charts of candles, volume and events: in the terminal, as a page of HTML, as a picture."""

"""What a check of a data set found, for people: on the console, as HTML, as pictures of suspicious pairs."""

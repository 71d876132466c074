"""One program for each client that is measured; all take the same options and print one line of JSON."""

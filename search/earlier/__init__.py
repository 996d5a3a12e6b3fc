"""Start from earlier searches: find them, keep what they know, map it to this space, and weigh what it was worth."""

"""`script/demo`: a subject is learned and shown where nobody ever photographed it."""

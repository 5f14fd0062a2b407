"""Commands of whoever runs nights: on a server, with workers, and the policies they promote."""

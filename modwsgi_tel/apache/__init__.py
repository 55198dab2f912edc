"""What Apache, gunicorn and uWSGI say of themselves: their error logs and Apache's configuration.  Read only, bounded."""

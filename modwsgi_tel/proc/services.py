"""Which service is behind an address or a unix socket, by its port or by its path."""
import re

# Ports below the range that a kernel gives clients of itself (32768)
_BY_PORT = {
    21: "ftp", 22: "ssh", 25: "smtp", 53: "dns", 80: "http", 88: "kerberos", 110: "pop3", 123: "ntp", 143: "imap",
    161: "snmp", 389: "ldap", 443: "https", 445: "smb", 464: "kerberos", 465: "smtp", 514: "syslog", 587: "smtp", 636: "ldap",
    993: "imap", 995: "pop3", 1433: "mssql", 1521: "oracle", 1883: "mqtt", 2049: "nfs", 2181: "zookeeper", 2379: "etcd",
    3306: "mysql", 3307: "mysql", 4222: "nats", 5432: "postgres", 5433: "postgres", 5671: "amqp", 5672: "amqp",
    5984: "couchdb", 6379: "redis", 6380: "redis", 6432: "pgbouncer", 7687: "neo4j", 8080: "http", 8086: "influxdb",
    8125: "statsd", 8200: "vault", 8443: "https", 8500: "consul", 8983: "solr", 9042: "cassandra", 9092: "kafka",
    9200: "elasticsearch", 11211: "memcached", 11300: "beanstalkd", 26379: "redis-sentinel", 27017: "mongodb",
    27018: "mongodb",
}
_BY_PATH = tuple((re.compile(pattern), service) for pattern, service in (
    (r"/\.s\.PGSQL\.6432$", "pgbouncer"), (r"/\.s\.PGSQL\.\d+$", "postgres"), (r"/(mysqld?|mariadb)[^/]*\.sock$", "mysql"),
    (r"(^|/)redis[^/]*(/[^/]*)?\.sock$", "redis"), (r"(^|/)memcached?[^/]*(/[^/]*)?\.sock$", "memcached"),
    (r"/mongodb-\d+\.sock$", "mongodb"), (r"/dbus/|/bus$", "dbus"), (r"^/dev/log$|/systemd/journal/", "syslog"), (r"/nscd/socket$", "nscd"),
    (r"/sss/(pipes|mc)/", "sssd"),
    (r"/docker\.sock$", "docker"), (r"/slapd/|/ldapi$", "ldap"), (r"wsgi\.\d+\.\d+\.\d+\.sock$", "mod_wsgi"),
))


def of_port(port):
    return _BY_PORT.get(port, "")


def of_addresses(local, remote, incoming):
    """The service at the other end of a connection; of one that came in, or of a socket that has none, the one at this end.

    local, remote: `10.0.0.5:5432` or None.
    """
    address = local if incoming or remote is None else remote
    return of_port(int(address.rpartition(":")[2])) if address else ""


def of_path(path):
    """The service behind a unix socket's path (or None)."""
    return next((service for pattern, service in _BY_PATH if pattern.search(path)), "") if path else ""

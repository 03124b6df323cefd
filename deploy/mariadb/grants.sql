-- What Debezium needs beside the tables, to read the binary log.
GRANT RELOAD, REPLICATION SLAVE, BINLOG MONITOR, SHOW DATABASES ON *.* TO 'crossfade'@'%';

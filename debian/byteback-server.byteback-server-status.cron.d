# Tells about alarms where systemd does not run; elsewhere byteback-status.timer does it.
# Nothing happens on a machine without a store, or with a byteback-status beside this file
# that byteback-setup-server or an administrator wrote.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
41 * * * * root [ -d /run/systemd/system ] || [ -e /etc/cron.d/byteback-status ] || [ ! -d ~byteback/.byteback ] || [ ! -x /usr/bin/byteback-status ] || nice byteback-status --notify

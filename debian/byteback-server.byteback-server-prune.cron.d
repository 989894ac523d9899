# Keeps room in the store where systemd does not run; elsewhere byteback-prune.timer
# does it. Nothing happens on a machine without a store, or with a byteback-prune beside
# this file that byteback-setup-server or an administrator wrote.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
*/5 * * * * root [ -d /run/systemd/system ] || [ -e /etc/cron.d/byteback-prune ] || [ ! -e /var/lib/byteback/store -a ! -d ~byteback/.byteback ] || [ ! -x /usr/bin/byteback-prune ] || nice byteback-prune --prune

# Checks the store where systemd does not run; elsewhere byteback-scrub.timer does it.
# Nothing happens on a machine without a store, or with a byteback-scrub beside this file
# that byteback-setup-server or an administrator wrote.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
23 3 1 * * root [ -d /run/systemd/system ] || [ -e /etc/cron.d/byteback-scrub ] || [ ! -d ~byteback/.byteback ] || [ ! -x /usr/bin/byteback-status ] || nice byteback-status --scrub

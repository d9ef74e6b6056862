#!/bin/busybox sh
# The lab's guest: a small machine with a real QEMU guest agent, real logins on real terminals, real filesystems and
# links, and a control port through which the host changes them. One file, three roles:
#
#   /init            process 1: sets the machine up, starts the agent, becomes busybox init
#   /init session    what init keeps on every terminal, in getty's place: waits for a name, then becomes login
#   /init control    executes the lines that arrive on the control port
#
# The kernel hands `name=value` words of its command line to process 1 as environment: machine, address.

TERMINALS=24
SESSIONS=/run/sessions
PORTS=/dev/virtio-ports
AGENT_PORT=$PORTS/org.qemu.guest_agent.0
CONTROL_PORT=$PORTS/org.guestwire.control.0

# ---- process 1 -------------------------------------------------------------------------------------------------------

boot() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs dev /dev
    mkdir -p /dev/pts $PORTS /run /tmp /mnt
    mount -t devpts pts /dev/pts
    exec </dev/console >/dev/console 2>&1
    for module in virtio_pci virtio_console virtio_blk virtio_net; do load $module; done
    link_ports
    hostname "${machine:-lab}"
    : >/run/utmp
    ip link set lo up
    for device in /sys/class/net/eth*; do [ -e "$device" ] && ethernet_up "${device##*/}"; done
    [ -n "$address" ] && ip address add "$address" dev eth0
    # Here and not later: a filesystem must be there before the first reader can ask for it.
    [ -b /dev/vda ] && mkdir -p /data && mount /dev/vda /data
    [ -e $AGENT_PORT ] && agent_start
    write_inittab
    exec init
}

# An interface has its own link-local address and what it is given, nothing that a router announces.
ethernet_up() {
    sysctl -q -w "net.ipv6.conf.$1.accept_ra=0"
    ip link set "$1" up
}

# Inserts a module and what it needs; the lists were written when the image was built.
load() {
    while read -r file parameters; do
        insmod "/lib/modules/$file" $parameters 2>/dev/null
    done <"/etc/modules/$1"
    return 0
}

# There is no udev here to give the virtio ports their names.
link_ports() {
    for port in /sys/class/virtio-ports/*; do
        [ -s "$port/name" ] && ln -s "../${port##*/}" "$PORTS/$(cat "$port/name")"
    done
}

write_inittab() {
    mkdir -p $SESSIONS
    [ -e $CONTROL_PORT ] && echo "::respawn:/init control"
    for number in $(seq $TERMINALS); do
        mkfifo $SESSIONS/tty$number
        echo "tty$number::respawn:/init session tty$number"
    done
    echo "::shutdown:/bin/umount -a -r -t ext4"
} >/etc/inittab

# ---- session ---------------------------------------------------------------------------------------------------------

session() {
    echo $$ >"$SESSIONS/$1.pid"
    read -r user <"$SESSIONS/$1"
    exec login -f "$user"
}

# ---- control ---------------------------------------------------------------------------------------------------------

# A request is "<id> <command> <word>..."; the reply is "<id> ok <text>" or "<id> error <text>", once it is done.
control() {
    set -f
    exec 3<>$CONTROL_PORT
    while :; do
        # Without a peer on the host's side the port is always at its end.
        read -r id words <&3 || { sleep 0.25; continue; }
        if reply=$(perform $words 2>&1); then outcome=ok; else outcome=error; fi
        echo "$id $outcome" $reply >&3
    done
}

perform() {
    command=$1
    [ $# -gt 0 ] && shift
    case $command in
        ping | login | logout | address | link | filesystem | fill | hostname | timezone | agent | clock | reboot | poweroff)
            "do_$command" "$@" ;;
        *) fail "unknown command '$command'" ;;
    esac
}

fail() {
    echo "$*"
    return 1
}

# until_true SECONDS CONDITION...: as a condition is a command, it is looked at every 0.1 s.
until_true() {
    tries=$(($1 * 10))
    shift
    while ! "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
}

do_ping() { echo pong; }

user_of() { who | while read -r user terminal rest; do [ "$terminal" = "$1" ] && echo "$user"; done; }
terminals_of() { who | while read -r user terminal rest; do [ "$user" = "$1" ] && echo "$terminal"; done; }
logged_in() { [ "$(user_of "$2")" = "$1" ]; }
logged_out() { [ -z "$(terminals_of "$1")" ]; }

do_login() {
    [ $# -gt 0 ] || { fail "login USER..."; return 1; }
    for user; do login_one "$user" || return 1; done
}

login_one() {
    case $1 in '' | *[!a-z0-9._-]*) fail "not a user name: '$1'"; return 1 ;; esac
    grep -q "^$1:" /etc/passwd || echo "$1::$((1000 + $(wc -l </etc/passwd))):100:$1:/:/bin/sh" >>/etc/passwd
    for number in $(seq $TERMINALS); do
        [ -n "$(user_of tty$number)" ] && continue
        echo "$1" >$SESSIONS/tty$number
        until_true 10 logged_in "$1" tty$number || { fail "$1 did not get in on tty$number"; return 1; }
        echo "tty$number"
        return 0
    done
    fail "all $TERMINALS terminals are taken"
}

# All hang up first: init takes its time to notice each end, but notices several at once.
do_logout() {
    [ $# -gt 0 ] || { fail "logout USER..."; return 1; }
    for user; do
        terminals=$(terminals_of "$user")
        [ -n "$terminals" ] || { fail "$user is not logged in"; return 1; }
        for terminal in $terminals; do kill -HUP "$(cat "$SESSIONS/$terminal.pid")"; done
    done
    for user; do until_true 10 logged_out "$user" || { fail "$user did not get out"; return 1; }; done
}

do_address() {
    case $1 in
        add | del) ip address "$1" "$3" dev "$2" ;;
        *) fail "address add|del INTERFACE CIDR" ;;
    esac
}

do_link() {
    case $1 in
        add)
            kind=${3:-dummy}
            case $kind in dummy | veth | bridge) load "$kind" ;; *) fail "unknown kind of link '$kind'"; return 1 ;; esac
            ip link add "$2" type "$kind" && ip link set "$2" up ;;
        del) ip link del "$2" ;;
        up | down) ip link set "$2" "$1" ;;
        *) fail "link add|del|up|down NAME [dummy|veth|bridge]" ;;
    esac
}

do_filesystem() {
    case $1 in
        add)
            load brd
            for device in $(cd /dev && set +f && ls -d ram*); do
                grep -q "^/dev/$device " /proc/mounts && continue
                mkdir -p "$2" && mke2fs "/dev/$device" >/dev/null && mount -t ext4 "/dev/$device" "$2" && echo "$device"
                return
            done
            fail "all memory disks are taken" ;;
        del)
            device=$(awk -v at="$2" '$2 == at { print $1 }' /proc/mounts)
            umount "$2" && case $device in /dev/ram*) freeramdisk "$device" ;; esac ;;
        *) fail "filesystem add|del MOUNTPOINT" ;;
    esac
}

# Leaves exactly this many MiB in DIRECTORY/fill.
do_fill() {
    case $2 in '' | *[!0-9]*) fail "fill DIRECTORY MIB"; return 1 ;; esac
    rm -f "$1/fill"
    [ "$2" -eq 0 ] || output=$(dd if=/dev/zero of="$1/fill" bs=1M count="$2" 2>&1) || { fail "$output"; return 1; }
    sync
}

do_hostname() { [ -n "$1" ] && hostname "$1"; }

# POSIX form, for example IST-5:30. The agent reads it once, hence the restart.
do_timezone() {
    [ -n "$1" ] || { fail "timezone TZ"; return 1; }
    echo "$1" >/run/timezone
    do_agent restart
}

agent_start() {
    blocked=$(cat /run/blocked 2>/dev/null)
    TZ=$(cat /run/timezone 2>/dev/null || echo UTC0) \
        setsid qemu-ga -m virtio-serial -p $AGENT_PORT -t /run ${blocked:+-b "$blocked"} </dev/null >/dev/console 2>&1 &
}
agent_gone() { ! pidof qemu-ga >/dev/null; }
agent_here() { pidof qemu-ga >/dev/null; }
agent_signal() {
    agent_here || { fail "the agent does not run"; return 1; }
    kill "-$1" $(pidof qemu-ga)
}

do_agent() {
    case $1 in
        start)
            agent_here && { fail "the agent already runs"; return 1; }
            agent_start
            until_true 5 agent_here || fail "the agent did not start" ;;
        stop) agent_signal TERM && { until_true 5 agent_gone || fail "the agent did not stop"; } ;;
        kill) agent_signal KILL && until_true 5 agent_gone ;;
        hang) agent_signal STOP ;;
        wake) agent_signal CONT ;;
        restart)
            agent_here && do_agent kill
            do_agent start ;;
        block)
            echo "$2" >/run/blocked
            do_agent restart ;;
        *) fail "agent start|stop|kill|hang|wake|restart|block [COMMAND,...]" ;;
    esac
}

do_clock() {
    case $1 in
        set) date -s "@$2" ;;
        *) fail "clock set SECONDS" ;;
    esac
}

# In a moment: the reply must leave first.
do_reboot() { (sleep 0.5; reboot) </dev/null >/dev/null 2>&1 & }
do_poweroff() { (sleep 0.5; poweroff) </dev/null >/dev/null 2>&1 & }

# ---- dispatch --------------------------------------------------------------------------------------------------------

case $1 in
    session) session "$2" ;;
    control) control ;;
    *) boot ;;
esac

# Owns one RabbitMQ node and its epmd: does what stdin says, and takes both down when stdin ends, which it does
# however its starter dies. Arguments: folder, epmd port, folder of RabbitMQ's scripts.
folder=$1
epmd -address 127.0.0.1 -port "$2" </dev/null >"$folder/epmd.log" 2>&1 &
epmd=$!
node=
while read -r word; do
	case $word in
	start)
		# Under systemd the script becomes the Erlang VM instead of staying its parent.
		RUNNING_UNDER_SYSTEMD=true "$3/rabbitmq-server" </dev/null >>"$folder/out" 2>&1 &
		node=$!
		echo started "$node"
		;;
	kill | stop)
		signal=KILL
		[ "$word" = stop ] && signal=TERM
		[ -n "$node" ] && kill -s "$signal" "$node" && wait "$node"
		node=
		echo ended
		;;
	alive)
		if [ -n "$node" ] && kill -0 "$node" 2>/dev/null; then echo yes; else echo no; fi
		;;
	esac
done
[ -n "$node" ] && kill -s KILL "$node"
kill -s KILL "$epmd"
wait
# Helper processes of the VM may live, and write, a moment longer than it.
while ! rm -rf "$folder"; do sleep 0.1; done

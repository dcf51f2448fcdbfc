# A Perl interpreter that has started already, for one CGI script: `perl OPTIONS zygote.pl SPAWNER_PID SYS_CLONE SYS_RECVMSG
# SYS_PRCTL SYS_DUP3 SYS_CLOSE SYS_EXIT_GROUP SCRIPT`. What is spoken on descriptor 0, and what a forked process is for, is in the head of zygote.py.
#
# There is one for each script, because modules are as little undone in Perl as they are hidden: what the script's compilation loads (looked at in a process
# of its own, as `perl -c` does) is loaded before. Modules of Perl itself and CGI.pm's family are; others are loaded by each run.
#
# This file ends behind the block below. The interpreter then reads on from the same descriptor, which by that time is the script: it becomes the main program
# itself, with its #! line, __END__ and DATA, caller(), file-scoped variables and line numbers.
BEGIN {
    package Cherokee::Zygote;

    my ($spawner, $sys_clone, $sys_recvmsg, $sys_prctl, $sys_dup3, $sys_close, $sys_exit_group, $script) = @ARGV;
    my $warnings = $^W;
    $^W = 0;
    my $RUN = 48;    # bytes: device, inode, size, mtime_ns, ctime_ns (8 each), arguments, variables (4 each)
    my ($PR_SET_PDEATHSIG, $PR_SET_NAME, $PR_SET_CHILD_SUBREAPER, $PR_GET_TID_ADDRESS) = (1, 15, 36, 40);
    my $CLONE_FLAGS = 0x8000 | 0x200000 | 0x1000000 | 17;    # PARENT, CHILD_CLEARTID, CHILD_SETTID, SIGCHLD
    my $O_CLOEXEC = 02000000;
    my ($EXIT_CANNOT, $MAX_REPORT) = (4, 8000);
    my %never = map { $_ => 1 } qw(FindBin.pm threads.pm threads/shared.pm diagnostics.pm Benchmark.pm);
    # Where the interpreter reads this file from, and the script in time.
    my $main_fd;

    my $leave = sub { syscall($sys_exit_group, $_[0]) };
    my $cannot = sub {
        print STDERR "this interpreter cannot be kept warm: $_[0]\n";
        $leave->($EXIT_CANNOT);
    };
    $cannot->("its pointers are not 64 bits wide") if length(pack("J", 0)) != 8 || length(pack("p", "")) != 8;
    my $own = join(",", (stat(__FILE__))[0, 1]);
    for my $fd (3 .. 63) {
        $main_fd = $fd if join(",", (stat("/proc/self/fd/$fd"))[0, 1]) eq $own;
    }
    $cannot->("it does not keep open the file that it runs") if !defined $main_fd;
    my $tid = "\0" x 8;
    syscall($sys_prctl, $PR_GET_TID_ADDRESS, $tid, 0, 0, 0) == 0
        or $cannot->("the kernel does not say where the thread's id is kept (PR_GET_TID_ADDRESS)");
    $tid = unpack("J", $tid);

    my $receive = sub {    # (handle, most): data, descriptors
        my ($handle, $size) = @_;
        # How long it is first (MSG_PEEK, MSG_TRUNC): room for the longest would be pages that each process has to be given.
        my $look = pack("J L x4 J J J J i x4", 0, 0, 0, 0, 0, 0, 0);
        my $there = syscall($sys_recvmsg, fileno($handle), $look, 0x22);
        return if $there <= 0;
        $size = $there if $there < $size;
        my ($data, $control) = ("\0" x $size, "\0" x 128);
        my $part = pack("P J", $data, $size);
        my $message = pack("J L x4 P J P J i x4", 0, 0, $part, 1, $control, length($control), 0);
        my $len = syscall($sys_recvmsg, fileno($handle), $message, 0x40000000);
        return if $len <= 0;
        my ($left, $at) = (unpack("x40 J", $message), 0);
        my @fds;
        while ($at + 16 <= $left) {
            my ($size, $level, $kind) = unpack("J i i", substr($control, $at, 16));
            last if $size < 16;
            my $body = substr($control, $at + 16, $size - 16);
            @fds = unpack("i*", $body) if $kind == 1;
            $at += ($size + 7) & ~7;
        }
        return (substr($data, 0, $len), \@fds);
    };
    my $entries = sub {
        opendir(my $folder, $_[0]) or return "";
        my @found = sort readdir($folder);
        closedir($folder);
        return join(",", @found);
    };
    my $packed_identity = sub {    # in whole seconds, which is all that stat() tells; zeros: there is none
        my ($device, $inode, $size, $modified, $changed) = (stat($_[0]))[0, 1, 7, 9, 10];
        return "\0" x 40 if !defined $inode;
        return pack("Q Q Q q q", $device, $inode, $size, $modified * 1e9, $changed * 1e9);
    };

    # Which modules

    my %from;    # what Perl itself consists of
    for my $known (qw(strict.pm Carp.pm Encode.pm Socket.pm CPAN.pm)) {
        for my $folder (@INC) {
            next if ref($folder) || !-e "$folder/$known";
            $from{$folder} = 1;
            last;
        }
    }
    my $may_be_loaded = sub {
        my ($name, $file) = @_;
        return 0 if $name !~ /\.pm\z/ || $never{$name} || $name =~ m{^(Test|CPAN|TAP)[/.]} || !defined $file;
        return 1 if $name =~ m{^(CGI|HTML/Entities|HTML/Parser)[/.]};
        return scalar grep { $file eq "$_/$name" } keys %from;
    };
    my $state = sub {    # what loading a module must leave alone
        my $umask = umask;
        return join(
            "\n",
            $entries->("/proc/self/fd"), readlink("/proc/self/cwd"), $umask, "@INC", $0, "@ARGV",
            (map { defined $_ ? $_ : "" } $/, $\, $,, $;, $", $|, $^W, $^F, $^T, $$),
            (map { "$_=" . (defined $SIG{$_} ? $SIG{$_} : "") } sort keys %SIG),
            (map { "$_=$ENV{$_}" } sort keys %ENV),
            join(",", sort keys %CORE::GLOBAL::), join(",", sort keys %UNIVERSAL::), ref(tied(*STDOUT)) . "", select(),
            (-s STDOUT) . ""
        );
    };
    my $in_child = sub {    # what a function writes, in a process of its own; "" when it does not come to its end
        my ($function) = @_;
        pipe(my $reader, my $writer) or return "";
        my $pid = fork();
        return "" if !defined $pid;
        if ($pid == 0) {
            $function->($writer);
            $leave->(0);
        }
        close($writer);
        my $answer = "";
        my $end = time + 6;
        while (time < $end) {
            my $ready = "";
            vec($ready, fileno($reader), 1) = 1;
            next if select($ready, undef, undef, 0.5) <= 0;
            last if !sysread($reader, $answer, 65536, length($answer));
        }
        close($reader);
        kill(9, $pid);
        waitpid($pid, 0);
        return $answer;
    };
    my $silence = sub {
        open(my $sink, "+>", undef) or $leave->(1);
        syscall($sys_dup3, fileno($sink), $_, 0) for 1, 2;
        close($sink);
    };

    my $folder;    # of the script: its working directory
    my $learnt = "";    # the identity of the script that is known
    my $data_of = "";    # the package that has the script's DATA
    my $read_before = 0;    # bytes that the interpreter has read from $main_fd before the script, and counts as if they were of it
    my $at_start;    # what is to be done when the script has been compiled, before its own INIT blocks
    INIT { $at_start->() if defined $at_start }
    my $read_on_from = sub {
        # Two steps, because the # line has to be read from elsewhere than the script: the block is in a pipe, and reading goes on behind it.
        my ($path, $source) = @_;
        our $next = sub {
            syscall($sys_dup3, fileno($source), $main_fd, $O_CLOEXEC);
            close($source);
            delete $main::{"Cherokee::"};
        };
        pipe(my $reader, my $writer) or $leave->(1);
        my $block = "BEGIN { \$Cherokee::Zygote::next->() }\n# line 1 \"$path\"\n";
        $read_before = (-s __FILE__) + length($block);
        syswrite($writer, $block);
        syscall($sys_dup3, fileno($reader), $main_fd, $O_CLOEXEC);
    };
    my $find_data = sub {    # the package whose handle is that of the script; undef when there is none
        my (@packages, %seen) = ("main");
        while (defined(my $package = shift(@packages))) {
            my $names = \%{"${package}::"};
            next if $seen{$names}++;
            my $glob = $names->{DATA};
            my $fd = ref(\$glob) eq "GLOB" && defined *{$glob}{IO} ? fileno(*{$glob}{IO}) : undef;
            return $package if defined $fd && $fd == $main_fd;
            push(@packages, map { $package . "::" . substr($_, 0, -2) } grep { /::\z/ } keys %$names);
        }
        return;
    };
    my $place_data = sub {    # tell() says where it is in the script's file then, and seek() and sysseek() go on from there
        my $data = *{"${data_of}::DATA"}{IO};
        my $at = tell($data) - $read_before;
        return seek($data, $at, 0) ? $at : undef;
    };

    # The zygote

    open(my $orders, "+<&", 0) or $cannot->("its order socket cannot be duplicated: $!");
    open(my $null, "+<", "/dev/null") or $cannot->("/dev/null: $!");
    syscall($sys_dup3, fileno($null), 0, 0);
    close($null);

    my ($wanted, $has_learnt);
    my $compile_in_child = sub {    # returns in the child only, which goes on to read the script
        pipe(my $reader, my $writer) or return;
        my $pid = fork();
        return if !defined $pid;
        if ($pid == 0) {
            close($reader);
            return $writer;
        }
        close($writer);
        my ($answer, $end) = ("", time + 6);
        while (time < $end) {
            my $ready = "";
            vec($ready, fileno($reader), 1) = 1;
            next if select($ready, undef, undef, 0.5) <= 0;
            last if !sysread($reader, $answer, 65536, length($answer));
        }
        close($reader);
        kill(9, $pid);
        waitpid($pid, 0);
        $has_learnt = $answer;
        return;
    };
    my $load = sub {    # what the compilation has loaded, and from where
        my ($names, $folders, $package) = split(/\n\n/, $_[0]);
        $data_of = defined $package ? $package : "";
        my %loaded = map { split(/\t/, $_, 2) } split(/\n/, $names);
        local $^W = $warnings;
        my @folders = map { m{^/} ? $_ : "$folder/$_" } split(/\n/, defined $folders ? $folders : "");
        for my $name (sort keys %loaded) {
            next if $INC{$name} || !$may_be_loaded->($name, $loaded{$name});
            my $is_quiet = $in_child->(
                sub {
                    my ($writer) = @_;
                    $silence->();
                    my $before = $state->();
                    eval { require $name };
                    syswrite($writer, "yes") if !$@ && $INC{$name} eq $loaded{$name} && $before eq $state->();
                }
            );
            eval { require $name } if $is_quiet eq "yes";
        }
        my %places;
        for my $name (keys %INC) {
            $places{ $INC{$name} } = 1;
            my $below = $name =~ m{^(.*)/} ? "/$1" : "";
            $places{$_ . $below} = 1 for @folders;
        }
        my $report = "W";
        for (sort keys %places) {
            my $entry = $packed_identity->($_) . "$_\0";
            if (length($report) + length($entry) > $MAX_REPORT) {
                syswrite($orders, $report);
                $report = "W";
            }
            $report .= $entry;
        }
        syswrite($orders, $report);
    };
    my $become = sub {    # in a forked process: waits, and makes itself the script
        my ($fd) = @_;
        setpgrp(0, 0);
        syscall($sys_prctl, $PR_SET_PDEATHSIG, 9, 0, 0, 0);
        syscall($sys_prctl, $PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        $leave->(0) if getppid() != $spawner;
        close($orders);
        open(my $waiting, "+<&=", $fd) or $leave->(0);
        my ($data, $fds) = $receive->($waiting, 262144);
        $leave->(0) if !defined $data || @$fds != 3;
        syscall($sys_dup3, $fds->[$_], $_, 0) for 0 .. 2;
        close($waiting);
        syscall($sys_close, $_) for @$fds;
        my ($count, $variables) = unpack("x40 L L", $data);
        my ($directory, $program, $path, @rest) = split(/\0/, substr($data, $RUN), -1);
        my @arguments = splice(@rest, 0, $count);
        %ENV = map { split(/=/, $_, 2) } splice(@rest, 0, $variables);
        my $is_fresh = substr($data, 0, 40) eq $learnt && chdir($directory);
        my $source;
        if (!$is_fresh || !open($source, "<", $path)) {
            chdir($directory);
            (exec { $program } @arguments) or print STDERR "it cannot be executed: $!\n";
            $leave->(127);
        }
        @ARGV = @arguments;
        while (@ARGV && shift(@ARGV) ne $path) { }
        $^T = time;
        srand;
        $0 = $path;
        my $name = $program;
        $name =~ s{.*/}{}s;
        syscall($sys_prctl, $PR_SET_NAME, substr($name, 0, 15) . "\0", 0, 0, 0);
        $^W = $warnings;
        $at_start = $place_data if $data_of ne "";
        $read_on_from->($path, $source);
    };

    $folder = $script =~ m{^(.+)/} ? $1 : "/";
    if ($script =~ /["\n]/) {
        print STDERR "its name cannot stand in a # line\n";
        $leave->($EXIT_CANNOT);
    }
    syswrite($orders, "R");
    ORDER: while (1) {
        if (defined $wanted && unpack("x24 q", $wanted) / 1e9 < time - 1) {
            my $identity = $wanted;
            undef $wanted;
            undef $has_learnt;
            my $writer = $compile_in_child->();
            if (defined $writer) {
                $silence->();
                chdir($folder);
                open(my $source, "<", $script) or $leave->(1);
                $at_start = sub {    # CHECK blocks are run after errors as well
                    my @names = map { "$_\t" . (defined $INC{$_} ? $INC{$_} : "") } keys %INC;
                    $data_of = $find_data->();
                    my ($at, $text) = (defined $data_of ? $place_data->() : undef, "");
                    open(my $file, "<", $script) or $leave->(1);
                    read($file, $text, $at) if defined $at;
                    my $package = $text =~ /(?:__(?:END|DATA)__|[\x04\x1a])[^\n]*\n?\z/ ? $data_of : "";
                    syswrite($writer, join("\n", @names) . "\n\n" . join("\n", @INC) . "\n\n$package\nend");
                    $leave->(0);
                };
                @ARGV = ();
                $0 = $script;
                $^W = $warnings;
                $read_on_from->($script, $source);
                last ORDER;
            }
            my $text = "";
            if (open(my $file, "<", $script)) {
                local $/;
                $text = <$file>;
                close($file);
            }
            if (defined $has_learnt && $has_learnt =~ s/\nend\z//) {
                $load->($has_learnt);
                my $has_data = $data_of eq "" && $text =~ /^(?:__(?:DATA|END)__\b|[\x04\x1a])/m;
                if ($has_data && $text =~ /\b(seek|tell)\b/ && $text =~ /\bDATA\b/) {
                    syswrite($orders, "C$script\0it looks at places in its DATA");
                } else {
                    $learnt = $identity;
                }
            } else {
                syswrite($orders, "C$script\0it does not compile without a request");
            }
            syswrite($orders, "G");
        }
        my $ready = "";
        vec($ready, fileno($orders), 1) = 1;
        next if select($ready, undef, undef, defined $wanted ? 0.2 : undef) <= 0;
        my ($order, $fds) = $receive->($orders, 8192);
        $leave->(0) if !defined $order;
        if ($order =~ /^S/) {
            my $identity = substr($order, 1, 40);
            syswrite($orders, "Q"), next if $learnt ne "" && $learnt ne $identity;
            $wanted = $identity if $learnt eq "";
        } elsif ($order =~ /^F/ && @$fds) {
            my $pid = syscall($sys_clone, $CLONE_FLAGS, 0, 0, $tid, $tid);
            if ($pid == 0) {
                $become->($fds->[0]);
                last ORDER;
            }
            syswrite($orders, $pid > 0 ? "P" . pack("L", $pid) : "X" . pack("L", $!));
            syscall($sys_close, $fds->[0]);
        }
    }
}

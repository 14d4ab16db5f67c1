# Sourced by speedrun.sh: runs the stages of a tier, each once, and remembers which are done.
#
# A finished stage leaves .done/<tier>/<number>-<name> in the base directory, holding its command. It is skipped while its
# command stays the same and no stage before it has run anew. While it runs, the same lies in <number>-<name>.begun, so that
# one which was stopped goes on. Where its command or a stage before it is no longer the same, that becomes .stale: what the
# stage made may then be replaced, if the script finds that it is of another run. Wants $tier, $fresh, $here (where the
# user stands) and, where it is not the tier's name, $asked (with what speedrun.sh was started). For the page there lie
# beside them `stages`, the list of all, and `stopped`, if the run was.

done_dir='' stage_name='' stage_number=0 anew='' background_name='' background_pid='' page_pid='' finished=''

begin() {
    local other depth
    done_dir=$NANOCHAT_BASE_DIR/.done/$tier
    for other in kindergarten d20 d26 d32 budget; do     # one tier a folder: they would replace each other's tokenizer
        if [ "$other" != "$tier" ] && compgen -G "$NANOCHAT_BASE_DIR/.done/$other/*-tok_train*" >/dev/null; then
            echo "error: $NANOCHAT_BASE_DIR holds the $other run, whose tokenizer this one would replace. Give this one a" \
                 "folder of its own: NANOCHAT_BASE_DIR=FOLDER $(again)" >&2
            exit 1
        fi
    done
    if [ -n "$fresh" ]; then
        [ "$tier" = kindergarten ] && depth=d3 || depth=$tier
        echo "starting over: deleting $NANOCHAT_BASE_DIR/*_checkpoints/$depth and the list of finished stages"
        rm -rf "$done_dir" "$NANOCHAT_BASE_DIR"/*_checkpoints/"$depth"  # the folders of nanochat/train/stages.py
    fi
    mkdir -p "$done_dir"
    rm -f "$done_dir/stopped"
    list_stages >"$done_dir/stages"
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap on_exit EXIT
    echo "tier $tier; everything it makes is kept in $NANOCHAT_BASE_DIR"
}

# The tier's stages as lines of NAME COMMAND, out of its own function.
list_stages() {
    local body=$tier
    case $tier in budget) body=budget_tier ;; d*) body=gpu_tier ;; esac
    declare -f "$body" | sed -n 's/;$//; s/^ *stage \([a-z_0-9]* .*\)/\1/p' || true
}

# The page that shows the run, and ends with it, whatever ends that. Where none can be had the run goes on without.
start_page() {
    local log=$done_dir/page.log line='' tries=0
    nice python -m scripts.chat_web --next_port --preload=false --device=cpu --ends_with=$$ >"$log" 2>&1 </dev/null &
    page_pid=$!
    while [ -z "$line" ] && [ $tries -lt 600 ] && kill -0 "$page_pid" 2>/dev/null; do  # a minute: training can wait no longer
        tries=$((tries + 1))
        sleep 0.1
        line=$(sed -n 's/^Chat at //p' "$log")
    done
    [ -n "$line" ] && echo "watch it learn: $line/#run" || echo "no page to watch it in: $(tail -n 1 "$log")"
}

# stage NAME COMMAND...: run the command unless that is done already.
stage() {
    local stamp stale start=$SECONDS replace=()
    stage_name=$1 stage_number=$((stage_number + 1))
    shift
    stamp=$done_dir/$(printf '%02d-%s' "$stage_number" "$stage_name")
    if [ -z "$anew" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$*" ]; then
        echo "done before: $stage_name"
        return
    fi
    anew=yes
    forget_from "$stage_number" "$*"
    [ "$background_name" != "$stage_name" ] || stop_background
    printf '\n=== %s: %s\n' "$stage_name" "$*"
    for stale in "$done_dir"/[0-9]*-"$stage_name".stale; do
        [ -f "$stale" ] && replace=($(replacing "$*")) || continue
        [ ${#replace[@]} -eq 0 ] || echo "this or a stage before it has changed: starts over, unless nothing differs for it," \
            "and replaces what was made by: $(cat "$stale")"
    done
    echo "$*" >"$stamp.begun"
    "$@" ${replace[@]+"${replace[@]}"}
    echo "$*" >"$stamp.tmp"
    rm -f "$done_dir"/[0-9]*-"$stage_name".{begun,stale}
    mv "$stamp.tmp" "$stamp"
    printf -- '--- %s took %s, %s since the start\n' "$stage_name" "$(clock $((SECONDS - start)))" "$(clock $SECONDS)"
}

# A stage that runs anew makes those after it out of date: in this run and, should it be interrupted, in the next. Its own
# beginning is kept if it was by the same command.
forget_from() {
    local stamp number
    for stamp in "$done_dir"/[0-9]*; do
        [ -f "$stamp" ] || continue
        number=${stamp##*/}
        number=$((10#${number%%-*}))
        case $stamp in
            *.stale) continue ;;
            *.begun) [ "$number" -ne "$1" ] || [ "$(cat "$stamp")" != "$2" ] || continue ;;
        esac
        [ "$number" -lt "$1" ] || mv "$stamp" "${stamp%.begun}.stale"
    done
}

# The flag by which a command replaces what another run has left; none where it leaves nothing to go on with.
replacing() {
    case "$1 " in
        *' scripts.base_train '* | *' scripts.mid_train '* | *' scripts.chat_sft '* | *' scripts.chat_rl '*) echo --replace ;;
    esac
}

# background NAME COMMAND...: start early what the later stage NAME will go on with, where its progress can be seen.
background() {
    compgen -G "$done_dir/*-$1" >/dev/null && return
    background_name=$1
    shift
    echo "in the background: $*"
    "$@" >/dev/null 2>&1 &
    background_pid=$!
}

stop_background() {
    [ -n "$background_pid" ] || return 0
    kill "$background_pid" 2>/dev/null || true
    wait "$background_pid" 2>/dev/null || true
    background_pid=''
}

on_exit() {
    local code=$?
    stop_background
    [ -z "$page_pid" ] || { kill "$page_pid" && wait "$page_pid"; } 2>/dev/null || true
    [ -z "$finished" ] || return 0
    echo "$stage_name" >"$done_dir/stopped"
    [ $code -ne 0 ] || code=1
    if [ $code -ge 128 ]; then
        printf '\nstopped in stage %s. What is finished is kept; go on with: %s\n' "$stage_name" "$(again)" >&2
    else
        printf '\nstage %s failed, see above. When that is mended, go on with: %s\n' "$stage_name" "$(again)" >&2
    fi
    exit $code
}

end() {
    finished=yes
    local python="$(from_here .venv/bin/python)"
    [ "$NANOCHAT_BASE_DIR" = "$HOME/.cache/nanochat" ] || python="NANOCHAT_BASE_DIR=$(printf '%q' "$NANOCHAT_BASE_DIR") $python"
    local card=$NANOCHAT_BASE_DIR/report/report.md
    [ ! -w . ] || card=$(from_here report.md)
    printf '\nreport card: %s (%s in all), and beside it report.html\n' "$card" "$(clock $SECONDS)"
    printf 'chat here:   %s -m scripts.chat_cli\n' "$python"
    printf 'in a page:   %s -m scripts.chat_web\n' "$python"
}

clock() { printf '%dm%02ds' $(($1 / 60)) $(($1 % 60)); }

# A path in the repository, as the user would type it from where they stand.
from_here() { [ "$here" = "$PWD" ] && printf '%q' "$1" || printf '%q' "$PWD/$1"; }

# The command that goes on with this run.
again() { printf 'bash %s %s' "$(from_here speedrun.sh)" "${asked:-$tier}"; }

"""Programs about `try`, run eagerly and compiled by test_try.py: which exception is caught where, and what is left.

They take the state and a list to log to. A prompt with BOOM in it makes a generation fail; one with NUM in it generates
a number.
"""

from __future__ import annotations

import sys
import traceback

import ramify as rf


def read_before_is_not_caught(s, log):
    s += "n: " + rf.gen("n", max_tokens=2, dtype=int)
    x = s["n"]
    try:
        s += f"value {x}"
        y = x + 1
    except ValueError:
        log.append("caught")
        y = 0
    return y


def read_inside_is_caught(s, log):
    s += "n: " + rf.gen("n", max_tokens=2, dtype=int)
    try:
        x = s["n"]
        s += "more"
        log.append("never")
    except ValueError as e:
        log.append(str(e))
        x = 0
        s += "failed"
    return x, s.text()


def read_inside_is_lazily_unused(s, log):
    s += "n: " + rf.gen("n", max_tokens=2, dtype=int)
    try:
        s["n"]
    except ValueError:
        return "caught", s.text()
    return "no"


def gen_fails_boom(s, log):
    s += "BOOM" + rf.gen("a", max_tokens=2)
    t = s.copy()
    try:
        t += "x"
        a = t["a"]
    except rf.RamifyError as e:
        log.append((type(e).__name__, e.message))
        a = "none"
    return a


def gen_fails_unread(s, log):
    try:
        t = s.copy()
        t += "BOOM" + rf.gen("a", max_tokens=2)
    except rf.RamifyError:
        log.append("caught")
    s += "fine"
    return s.text()


def gen_fails_told_then_fine(s, log):
    t = s.copy()
    t += "BOOM" + rf.gen("a", max_tokens=2)
    try:
        t["a"]
    except rf.RamifyError as error:
        log.append(str(error.message))
    try:
        t.text()
    except rf.RamifyError as error:
        log.append(str(error.message))
    s += "fine" + rf.gen("b", max_tokens=1)
    return s["b"]


def finally_overrides(s, log):
    for i in range(3):
        try:
            s += f"{i}" + rf.gen("x", max_tokens=1)
            if i == 1:
                return "from body"
            raise KeyError(i)
        except KeyError:
            s += "k"
            continue
        finally:
            s += "f"
            if i == 1:
                break
    return s.text(), i


def return_in_finally_swallows(s, log):
    try:
        s += "a"
        raise RuntimeError("x")
    finally:
        s += "b"
        return s.text()


def bare_raise(s, log):
    try:
        try:
            s += "a" + rf.gen("x", max_tokens=1)
            int(s["x"])
        except ValueError:
            s += "first"
            raise
    except Exception as e:
        s += "second"
        log.append((type(e).__name__, e.__traceback__.tb_lineno, e.__context__ is None))
        tb = traceback.extract_tb(e.__traceback__)
        log.append([(f.name, f.lineno) for f in tb])
    return s.text()


def raise_from(s, log):
    try:
        try:
            s += "a" + rf.gen("x", max_tokens=1)
            int(s["x"])
        except ValueError as e:
            s += "first"
            raise KeyError("k") from e
    except KeyError as e:
        log.append((type(e.__cause__).__name__, type(e.__context__).__name__))
        s += "second"
    return s.text()


def context_chain(s, log):
    try:
        try:
            s += "a" + rf.gen("x", max_tokens=1)
            int(s["x"])
        except ValueError as e:
            s["unknown"]
    except KeyError as e:
        log.append((type(e.__cause__).__name__, type(e.__context__).__name__))
        log.append(type(sys.exc_info()[1]).__name__)
        s += "second"
    log.append(sys.exc_info())
    return s.text()


def uncaught_chain(s, log):
    try:
        s += "a" + rf.gen("x", max_tokens=1)
        int(s["x"])
    except ValueError as e:
        s += "b"
        s["unknown"]


def unmatched(s, log):
    try:
        s += "a" + rf.gen("x", max_tokens=1)
        int(s["x"])
    except KeyError:
        s += "no"
    except (TypeError, IndexError) as e:
        s += "no"
    finally:
        log.append(type(sys.exc_info()[1]).__name__)
        s += "fin"


def helper_raises(s, log):
    s += "h" + rf.gen("x", max_tokens=1)
    log.append(type(sys.exc_info()[1]).__name__)
    raise LookupError(s["x"])


def through_helper(s, log):
    try:
        helper_raises(s, log)
    except LookupError as e:
        log.append(str(e))
        try:
            helper_raises(s, log)
        except LookupError as f:
            log.append((str(f), f.__context__ is e))
            log.append([(x.name, x.lineno) for x in traceback.extract_tb(f.__traceback__)])
    log.append(sys.exc_info())
    return s.text()


def through_helper_uncaught(s, log):
    try:
        helper_raises(s, log)
    finally:
        s += "fin"


def name_is_deleted(s, log):
    e = "outer"
    try:
        s += "a"
        raise ValueError(1)
    except ValueError as e:
        s += "b"
    return e


def name_is_deleted_on_exception(s, log):
    try:
        try:
            s += "a"
            raise ValueError(1)
        except ValueError as e:
            s += "b"
            raise KeyError(2)
        finally:
            try:
                log.append(e)
                s += "z"
            except UnboundLocalError as u:
                log.append("gone")
                s += "y"
    except KeyError:
        s += "k"
        try:
            s += str(e)
        except NameError:
            s += "gone"
    return s.text()


def name_boxed(s, log):
    try:
        s += "a"
        raise ValueError(1)
    except ValueError as e:
        f = lambda: e
        s += str(f())
        if s.text():
            log.append(repr(f()))
    try:
        s += repr(f())
    except NameError as n:
        s += "gone"
        log.append(str(n))
    return s.text()


def partial_block(s, log):
    x = y = 0
    try:
        s += "a"
        x = 1
        y = int("z")
        x = 2
    except ValueError:
        s += f"{x} {y}"
    return x, y


def partial_multi(s, log):
    x = y = 0
    d = ()
    try:
        s += "a"
        x = d[0:1] = y = 5
    except TypeError:
        s += f"{x} {y}"
    try:
        s += "b"
        for x in [1, 2, "q"]:
            y = 10 // x
        else:
            y = "else"
    except TypeError:
        s += f"{x} {y}"
    return x, y


def deleted_in_body(s, log):
    x = 1
    try:
        s += "a"
        del x
        s["no"]
    except KeyError:
        s += "b"
        try:
            s += f"{x}"
        except UnboundLocalError as e:
            log.append(str(e))
    return x


def loop_in_try(s, log):
    total = 0
    try:
        for b in s.fork(3):
            b += "NUM" + rf.gen("x", max_tokens=1, dtype=int)
            total += b["x"]
            if total > 80:
                s += "big"
                break
        else:
            s += "small"
        t = b.copy()
        t += "q" + rf.gen("z", max_tokens=1, dtype=int)
        total += t["z"]
        log.append("never")
    except ValueError:
        s += f"{total}"
        t += "late"
    return total, t.text(), b["x"]


def retry(s, log):
    for attempt in range(5):
        t = s.copy()
        try:
            t += f"try {attempt}" + ("NUM" if attempt == 3 else "") + rf.gen("x", max_tokens=1, dtype=int)
            value = t["x"]
        except ValueError as error:
            log.append(attempt)
            continue
        else:
            s += f"got {value}"
            break
    else:
        s += "never"
    return s.text(), value


def retry_exhausted(s, log):
    last = None
    for attempt in range(2):
        try:
            with s.user():
                s += f"try {attempt}" + rf.gen(f"x{attempt}", max_tokens=1, dtype=int)
                return s[f"x{attempt}"]
        except ValueError as error:
            last = error
            s.user_end()
    raise RuntimeError("exhausted") from last


def with_and_finally_order(s, log):
    while True:
        with s.user(), s.var_scope("all"):
            try:
                s += "a"
                if s.text():
                    break
            finally:
                s += "f"
    with s.var_scope("b"):
        try:
            return s.text(), log
        finally:
            s += "g"
            log.append("end")


def with_end_raises_outside(s, log):
    with s.user():
        try:
            s.user_end()
            return 1
        except rf.RamifyError:
            log.append("wrong")
        finally:
            s += "x"


def state_rebound(s, log):
    t = s
    try:
        t = s.copy()
        t += "copy" + rf.gen("x", max_tokens=1)
        if t["x"]:
            raise KeyError(1)
        t = s
    except KeyError:
        t += "handler"
    finally:
        t += "fin"
    s += "end"
    return s.text(), t.text(), t is s


def nested_all(s, log):
    out = []
    for i in range(6):
        try:
            s += f"<{i}"
            try:
                if i == 0:
                    s["no"]
                if i == 1:
                    raise ValueError(i)
                if i == 2:
                    continue
                if i == 3:
                    raise TypeError(i)
                if i == 4:
                    break
            except KeyError as e:
                out.append(str(e.args[0])[:5])
                s += "k"
            else:
                s += "e"
            finally:
                s += "f"
                out.append(i)
            s += "n"
        except ValueError as v:
            s += "v"
            out.append(v.args)
        except Exception:
            s += "x"
            out.append("x")
        else:
            s += "E"
        finally:
            s += ">"
    return out, s.text(), i


def bad_except(s, log):
    try:
        s += "a"
        raise ValueError(1)
    except 3:
        s += "b"


def bad_except_not_needed(s, log):
    try:
        s += "a"
    except 3:
        s += "b"
    return s.text()


def except_expr_reads(s, log):
    s["kind"] = ValueError
    try:
        s += "a"
        raise ValueError(1)
    except s["kind"]:
        s += "b"
    return s.text()


def stop_iteration(s, log):
    try:
        s += "a"
        next(iter([]))
    except StopIteration as e:
        s += "stop"
        log.append(type(e).__name__)
    try:
        s += "b"
        raise StopIteration(3)
    finally:
        s += "f"


def base_exception(s, log):
    try:
        s += "a"
        raise SystemExit(3)
    except Exception:
        s += "no"
    except BaseException as e:
        s += "yes"
        log.append(e.code)
    return s.text()


def walrus_in_try(s, log):
    try:
        s += "a" + rf.gen("x", max_tokens=1)
        if (n := len(s["x"])) and (m := int(s["x"])):
            s += "no"
    except ValueError:
        s += f"{n}"
        try:
            s += f"{m}"
        except UnboundLocalError:
            s += "unbound"
    return n, s.text()


def comprehension_in_try(s, log):
    try:
        forks = s.fork(2)
        for i, b in enumerate(forks):
            b += ("NUM" if i == 0 else "b") + rf.gen("x", max_tokens=1, dtype=int)
        values = [b["x"] for b in forks if not log.append(b["x"])]
    except ValueError:
        s += "bad"
        values = []
    return values, s.text()


def read_of_outer_pending_in_try(s, log):
    s += "NUM" + rf.gen("x", max_tokens=1, dtype=int)
    x = s["x"]
    t = s.copy()
    t += "q" + rf.gen("y", max_tokens=1, dtype=int)
    y = t["y"]
    try:
        s += "in"
        z = x + y
        raise KeyError(z)
    except Exception as e:
        log.append("wrong")
        s += "caught"
    finally:
        s += "fin"
    return s.text()


def lazy_concat_error_in_try(s, log):
    s += "a" + rf.gen("x", max_tokens=1)
    x = s["x"]
    try:
        y = x + 5
        s += "no"
        log.append("never")
    except TypeError:
        s += "type"
        y = 1
    return y, s.text()


def append_error(s, log):
    for part in ["a", 5, None, rf.gen("x", top_p=3.0), "b"]:
        try:
            s += part
            log.append("ok")
        except TypeError as e:
            log.append(e.args)
        except rf.RamifyError as e:
            log.append((type(e).__name__, e.message))
    return s.text()


def role_error(s, log):
    try:
        with s.user():
            with s.assistant():
                s += "never"
    except rf.RamifyError as e:
        log.append(e.message)
        s.user_end()
    return s.messages()


def group_join_in_try(s, log):
    forks = s.fork(2)
    forks += lambda i: f"BOOM{i}" + rf.gen("x", max_tokens=1)
    forks.join()
    try:
        log.append(s["x"])
    except rf.RamifyError as e:
        log.append(e.message)
    s += "end"
    return s.text()


def else_raises(s, log):
    try:
        try:
            s += "a"
        except ValueError:
            s += "wrong"
        else:
            s += "else"
            raise ValueError(1)
        finally:
            s += "fin"
    except ValueError:
        s += "outer"
    return s.text()


def continue_in_finally(s, log):
    for i in range(3):
        try:
            s += f"{i}"
            if i == 0:
                raise ValueError
            if i == 1:
                return "no"
        finally:
            log.append(i)
            s += "f"
            continue
    return s.text()


def return_value_evaluated_before_finally(s, log):
    x = "before"
    try:
        s += "a"
        return x, s.text()
    finally:
        x = "after"
        s += "b"


def yields_in_return_fail(s, log):
    try:
        s += "a" + rf.gen("x", max_tokens=1, dtype=int)
        return s["x"]
    except ValueError:
        s += "caught"
        return "handler"
    finally:
        s += "fin"


def unbound_return(s, log, flag=False):
    try:
        s += "a"
        if flag:
            z = 1
        return z
    except UnboundLocalError as e:
        s += "u"
        return str(e)


def unbound_in_loop_collect(s, log):
    try:
        items = [s["nope"] for _ in range(2)]
        s += "no"
    except KeyError:
        s += "k"
    return s.text(), items


def finally_reads_lazily(s, log):
    s += "a"
    try:
        s += "b" + rf.gen("n", max_tokens=1, dtype=int)
        raise KeyError(1)
    finally:
        n = s["n"]
        s += "never"


def handler_reads_fail(s, log):
    try:
        s += "b" + rf.gen("n", max_tokens=1, dtype=int)
        raise KeyError(1)
    except KeyError:
        n = s["n"]
        s += "never"


def try_in_while_test(s, log):
    n = 0
    while True:
        n += 1
        try:
            if n > 2:
                s += "stop"
                break
            s += f"{n}" + rf.gen("x", max_tokens=1)
            int(s["x"])
        except ValueError:
            pass
    return n, s.text()


def assign_in_handlers(s, log):
    try:
        s += "a"
        x = 1
        raise KeyError
    except ValueError:
        y = 1
        s += "v"
    except KeyError:
        y = 2
        s += "k"
    else:
        z = 3
        s += "e"
    s += f"{x}{y}"
    return x, y


def context_of_finally(s, log):
    try:
        try:
            s += "a"
            raise ValueError(1)
        finally:
            s += "f"
            raise KeyError(2)
    except KeyError as e:
        s += "k"
        log.append(type(e.__context__).__name__)
    return s.text()


def while_reads_in_try(s, log):
    try:
        i = 0
        while s["x"] if "x" in s else True:
            s += f"{i}" + rf.gen("x", max_tokens=1)
            i += 1
            if i > 1:
                s += "BOOM" + rf.gen("y", max_tokens=1)
                s["y"]
    except rf.RamifyError as e:
        return i, e.message
    return i


def sys_exc_in_comprehension(s, log):
    try:
        s += "a"
        raise ValueError(1)
    except ValueError:
        kinds = [(b.text(), type(sys.exc_info()[1]).__name__) for b in s.fork(2)]
        s += "x"
    return kinds


def reraise_variable(s, log):
    try:
        s += "a"
        raise ValueError("one")
    except ValueError as e:
        kept = e
        s += "b"
    try:
        s += "c"
        raise kept
    except ValueError as e:
        log.append([(f.name, f.lineno) for f in traceback.extract_tb(e.__traceback__)])
        s += "d"
    raise kept


def format_exc(s, log):
    try:
        s += "a"
        raise ValueError("one")
    except ValueError:
        log.append(
            [line for line in traceback.format_exc().splitlines() if "^" not in line and "in program" not in line]
        )
        s += "b"


def augassign(s, log):
    n = 0
    words = []
    try:
        s += "a"
        n += 1
        words += [1]
        n += int(s["zz"])
    except KeyError:
        s += f"{n}{words}"
    return n, words


def try_state_in_list(s, log):
    states = [s.copy(), s.copy()]
    try:
        for t in states:
            t += "BOOM" + rf.gen("q", max_tokens=1)
        log.append([t["q"] for t in states])
    except rf.RamifyError as e:
        states[0] += "x"
        log.append(e.message)
    return len(states)


def deep_return(s, log):
    for a in range(2):
        try:
            for b in range(2):
                try:
                    with s.user():
                        s += f"{a}{b}"
                        if (a, b) == (1, 0):
                            return s.text()
                finally:
                    s += "i"
                    log.append((a, b))
        finally:
            s += "o"
            log.append(a)


def except_group_star(s, log):
    try:
        s += "a"
        raise ExceptionGroup("g", [ValueError(1)])
    except* ValueError as g:
        s += "star"
    return s.text()


def context_of_a_shared_name(s, log):
    try:
        try:
            raise KeyError("first")
        except KeyError:
            if not log:
                log.append(later)
    except NameError as error:
        log.append((repr(error.__context__), error.__suppress_context__))
    try:
        log.append(later)
    except NameError as error:
        log.append((repr(error.__context__), error.__suppress_context__))
    later = s.text()
    return (lambda: later)()


def roles_of_what_is_no_text(s, log):
    for wrong in ([1], "a"):
        try:
            with s.user():
                s += "b" + rf.user(wrong) + rf.assistant(wrong)
        except (TypeError, rf.RamifyError) as error:
            log.append(type(error).__name__)
    return s.text()

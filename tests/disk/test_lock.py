import threading

from milepost.disk.lock import FolderLock
from milepost.disk.paths import FolderPaths


def test_another_thread_may_let_go_of_a_folder(tmp_path):
    lock = FolderLock.acquired(FolderPaths(tmp_path))
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    FolderLock.acquired(FolderPaths(tmp_path)).release()
